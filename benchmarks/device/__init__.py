"""What `benchmarks.device_check` measures, and how it runs one measurement after the other within a time.

`plan` is the list; `runner` runs it; `summary` is the table at its end; the others hold the measurements, each a
function of `At` that returns its figures. They import what they measure inside, so that each process loads one
framework only.
"""
