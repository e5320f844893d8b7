"""Digests by which two runs see that their images are the same, without their pixels."""

import hashlib

from tailmatch.datamodules.images import ImageRows


def rows_digest(rows: ImageRows) -> str:
    """Return the SHA-256 of which images a set has, and of which class each is.

    Images from files are told by their keys, so that a data set may lie elsewhere; others by their rows of the pool.
    """
    sha = hashlib.sha256(rows.targets.numpy().tobytes())
    if rows.images.keys is None:
        sha.update(rows.rows.numpy().tobytes())
    else:
        keys = rows.images.keys
        sha.update("\0".join(keys[row] for row in rows.rows.tolist()).encode("utf-8", "surrogatepass"))
    return sha.hexdigest()
