"""The split: which images are labeled, unlabeled, validation and test, and how many of each class."""
