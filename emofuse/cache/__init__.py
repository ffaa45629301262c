"""The feature cache: the only thing that passes between the building room and the training room."""
