"""Faults on purpose: commands killed, disks filled, files broken, thousands of volumes; see docs/reliability.md.

python -m benchmarks.soak                      # everything: about an hour on one core
python -m benchmarks.soak --only fuzz --files 10000
python -m benchmarks.soak --only kills --rounds 20 --out report.json
"""
