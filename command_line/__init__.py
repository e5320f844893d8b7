"""The command line: from the words that a user types to objects, run folders and messages."""
