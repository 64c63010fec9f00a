"""Self-contained HTML pages and their pictures: nothing is fetched, everything is escaped.

    report    the answers of a captioning run → a page (`write_report`)
    answers   totals over its rows, and its files with their rows
    everything  all files packed into the page, for its search
    truth     what an archive of the embedded world truly holds, beside what was answered
    media     spectrograms and short sounds to listen to, from the originals
    cells     values as a spreadsheet may hold them
    render    templates → a page; whether one can be written there
    charts    curves and histories as SVG, and as text for a terminal

Rooms that make a page of their own (train, evaluate) import media, render and charts; jobs import report.
"""
