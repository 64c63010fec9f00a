"""How single stores differ: those that speak S3, and what any of them can. Used by the modules of the room above.

s3           the client of stores that speak S3, Amazon's or not
ranged       seekable files over ranges of bytes, and whether all of them are those that were stored
abilities    what a store can, found out by trying
"""
