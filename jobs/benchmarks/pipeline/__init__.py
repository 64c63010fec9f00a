"""What the pipeline costs beside doing the same by hand, and an evaluation beside the pipeline.

caption      the Ray pipeline beside `plain` processes without Ray, on the same files
plain        one such process
score        the same answers with their scores and without
evaluate     `mats evaluate` beside `mats caption`
serve        pages of `mats serve` over a made-up run of many rows
"""
