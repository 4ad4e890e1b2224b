"""What runs inside the lab's kernel: its first process, and the loader of modules that the kernel calls.

Run by path from the machine's own Python, without site packages. Python takes a third of a second to start in
User-Mode Linux and some 10 ms more for each module, so nothing here imports typing, json, re, subprocess or socket.
"""
