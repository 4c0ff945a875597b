"""Ruby: forked children, and a grandchild that runs in the background for a moment."""

from common import run

PROGRAM = """
table = Array.new(400_000) { |i| i.to_s }
children = 3.times.map { fork { table.each_slice(7) { |slice| slice.join.hash }; exit!(0) } }
children.each { |child| Process.wait(child) }
detached = fork { Process.setsid; fork { 300_000.times { |i| i.to_s.hash }; exit!(0) }; exit!(0) }
Process.wait(detached)
"""


def start():
    pass


def handle(event):
    run("ruby", "-e", PROGRAM)
    return {}
