"""Image files: folders, tables, the cache of decoded pixels."""
