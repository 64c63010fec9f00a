"""The data that flows between jobs: what INPUT may be, corpora, and the Parquet tables with their columns.

inputs          what INPUT names (sounds, a list, a manifest, embeddings) as a stream of entries: `open_input`
lists           Parquet, CSV and JSONL lists as batches of rows; what is wrong with one that cannot be read
carried         a list's own columns: in which type each is carried along, and their values
corpus          corpus files as records, with what was wrong in them; a caption's normal form and id
corpus_formats  JSON lists, JSONL, CSV and Parquet taken apart, record by record with its line
json_stream     a JSON text walked piece by piece
embeddings      a table of embeddings: its facts (`_embeddings.json`) and its parts
generations     which files of an OUTPUT count, and what is said of it: a fence against writers that were frozen
parquet         the one reader and writer of Parquet files at any URI
results         what a job has written, as tables; rows that were pruned
schemas         every column of the manifest, the work list, answers and embeddings
private_uris    URIs that hold a secret, handed to the decoders of a run and to nobody else

Everything is public. Imports `pipelines.settings`; every other room of pipelines may import it.
"""
