"""Export, import, merge and copy the features of caches."""
