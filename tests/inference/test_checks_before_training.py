"""What a training looks at before it starts knows no test suite."""

import subprocess
import sys


def test_training_knows_no_test_suite() -> None:
    """torch imports unittest by itself; no module of ours that a training loads may hold it."""
    code = (
        "import sys\nimport gtm_pyro.training.fitting\n"
        "ours = {name: module for name, module in sys.modules.items() if name.startswith('gtm_pyro')}\n"
        "assert 'gtm_pyro.inference.checks' in ours\n"
        "assert not [name for name in ours if name.startswith('gtm_pyro.testing')]\n"
        "assert not [name for name, module in ours.items() if hasattr(module, 'unittest')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
