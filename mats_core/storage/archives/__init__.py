"""Files that hold sounds, each at an address of its own. Use it through `storage`.

tars   members of a tar archive: tar+URL!FIRST+SIZE/NAME, a range of its bytes
rows   rows of a Parquet file with sound in them: parquet+URL!ROW+COLUMN/NAME
"""
