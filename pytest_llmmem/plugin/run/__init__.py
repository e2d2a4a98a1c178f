"""While the tests run, in pytest's own process.

protocol         pytest's hooks: takes an isolated test over and replays its reports
runner           runs one test: a worker, its measurement, its reports
pool             where workers come from
queue            waiting until memory is free that other sessions use
inbox            what a worker says of its test
ranks            a test in several workers at once
first_fit        ``first_load_that_fits``: one strategy after the other; trials says what became of each
diagnosis        what is known of a failure, for the rules that explain it
same_collection  whether the ranks of one ``torchrun -m pytest`` have collected the same tests
in_process       tests that are measured without a worker
"""
