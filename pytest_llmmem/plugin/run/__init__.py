"""While the tests run, in pytest's own process.

protocol       pytest's hooks: takes an isolated test over and replays its reports
runner         runs one test: a worker, its measurement, its reports
pool           where workers come from
queue          waiting until memory is free that other sessions use
inbox          what a worker says of its test
ranks          a test in several workers at once
trials         ``first_load_that_fits``
in_process     tests that are measured without a worker
"""
