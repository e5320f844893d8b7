"""The methods, one file each: views, targets, losses."""
