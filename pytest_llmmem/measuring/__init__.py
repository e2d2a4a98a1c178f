"""Memory assertions in Python: what a function, a block, or one more call of a function needs.

measure, measurement    a function in a worker of its own, and what is known of it afterwards
sources, call, spawned  where that worker comes from, and what runs in it
blocks, growth          a block of code, and the calls of a function, where they run
connection              the connection that what runs now is measured through
inner_phases            what a test measures so, in the test's own record
limits                  a limit that a user has written, in bytes
"""
