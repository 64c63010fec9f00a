"""Data sets as their publishers ship them: a set as data, its folder, its tables and JSON files. What is evaluated and
what is trained on are read by the same code.

definition  what every set says of itself, and how its YAML file is read
folder      the files a definition names, where its folder is listed; errors that name set and file
tables      CSV and TSV files with their line numbers, JSON lists and objects as streams
layouts     which columns, fields and names say what, as options of a definition
origins     ids by which the same clip is found in another set

Everything is public. Imports `pipelines.settings` and `pipelines.data`; `pipelines.evaluate` and `pipelines.corpus`
import it.
"""
