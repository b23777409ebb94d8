import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # tests share few cores with their processes
