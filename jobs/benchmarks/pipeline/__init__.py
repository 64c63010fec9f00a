"""What the pipeline costs beside doing the same by hand, and an evaluation beside the pipeline.

caption      the Ray pipeline beside `plain` processes without Ray, on the same files
plain        one such process
evaluate     `mats evaluate` beside `mats caption`
"""
