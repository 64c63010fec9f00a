"""From published labels, captions and questions to corpus records: the first step of training on text alone.

clips       what a publisher tells of one clip, whatever the layout of its files
definition  a set as data; one YAML file each in sets/

`writing/` makes records of a clip. Imports `pipelines.published`, `pipelines.data`, `pipelines.output` and
`pipelines.cluster`; jobs import it.
"""
