"""Devices and hosts: placement of arrays, several hosts as one run, preemption."""
