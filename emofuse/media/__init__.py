"""The media that streams see: pictures, frames of clips and sounds decoded from files, and augmented views of them."""
