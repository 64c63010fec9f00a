"""Pipelines: typed settings in, a result object out; Ray lives here and nowhere below.

Nothing is imported here, so that `import pipelines.settings.archive` answers at once: Ray and torch are
imported by the functions that need them.
"""
