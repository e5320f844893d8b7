"""What `tailmatch compare` does: runs are read, checked against each other, and laid out as tables and a page."""
