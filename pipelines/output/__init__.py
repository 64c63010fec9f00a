"""An OUTPUT folder and its life: who may write into it, which rows it holds, how rows become durable.

folder    `open_output`, the one way in: writable, leased, emptied on --overwrite, of this job; closed at the end;
          and `Output.recorded`, which keeps `_run.json`
lease     one run writes at a time: the one that made the newest generation (`data.generations`)
parts     part files: rows that are done, and the writer that puts new ones in place whole
corrections  what people say of the answers, in files beside them; who shows or uses answers reads them
record    the job and settings an OUTPUT belongs to; `_run.json`, what its last run did

Everything is public. Imports `pipelines.settings` and `pipelines.data`; every pipeline that writes an OUTPUT imports
it.
"""
