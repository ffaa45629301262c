"""This machine: its devices, folders of the user, Python interpreters, and the pages that it serves to itself."""
