"""What verifiers finds by the taskset's id `leap-env`: ids are names of modules there. All is in `leap.interop.verifiers`."""

from leap.interop.verifiers import InProcess, LeapEnv, LeapTaskset

__all__ = ["InProcess", "LeapEnv", "LeapTaskset"]
