"""What the command line shares: for jobs alone.

commands   registers a command; what it raises becomes one line and an exit code
options    a settings model as a command: its fields are the options, their descriptions the --help text
display    progress while a job runs, and what it prints at its end
template   a commented YAML file of every setting of a model
"""
