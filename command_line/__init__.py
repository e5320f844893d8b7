"""What stands between a user's words and the classes: parsing, run folders, messages."""
