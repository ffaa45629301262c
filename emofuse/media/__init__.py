"""The media that streams see: images decoded from files, and augmented views of them."""
