"""Features that leave a cache, enter one, or move between caches: export, import, merge, copy."""
