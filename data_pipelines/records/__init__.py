"""Images as records: few large shards of ArrayRecord in place of millions of files, in the layout of TFDS.

A folder of records holds the shards, in which each record is an image's bytes with all that is known of it; the table
of all columns (`places.npz`), so that none of them is read to know where images were taken; `records.json` with the
length and checksum of each file; and TFDS's own description. Only writing needs tensorflow-datasets.
"""
