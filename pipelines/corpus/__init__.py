"""From published labels, captions and questions to corpus records: the first step of training on text alone.

clips       what a publisher tells of one clip, whatever the layout of its files
definition  a set as data; one YAML file each in sets/
readers/    files as their publishers ship them → clips
reading     the clips of a set that no evaluation set asks; what is missing; another release
writing/    records of a clip
blocks      what the workers of a run do
run         `mats corpus`

Imports `pipelines.published`, `pipelines.evaluate.datasets` (which clips are asked), `pipelines.data`,
`pipelines.output` and `pipelines.cluster`; jobs import it.
"""
