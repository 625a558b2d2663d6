"""`avel labels`: the text features of class names."""
