"""From the bytes of a file to what streams look at: pictures, and their augmented views."""
