"""The methods, one file each: views, targets and losses."""
