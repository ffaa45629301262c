"""Build and check the site of documentation: `make docs`. Nothing here is part of the installed package."""
