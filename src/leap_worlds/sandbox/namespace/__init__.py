"""Sandboxes made of Linux namespaces: no daemon, nothing to install, no privilege.

    client (the training process)  --socket-->  zygote (small Python, started once)
                                                   forks one monitor for each sandbox
                                                      unshares; forks PID 1 of the box and each command

`kernel`, `filters`, `mounts`, `cgroups`, `users`, `command`, `snapshots`, `monitor` and `zygote` run in the small process, on the
standard library alone; `provider` is the training process's side. This file imports nothing, so that the zygote stays small.
"""
