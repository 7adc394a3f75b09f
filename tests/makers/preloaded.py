"""What the fork server imports, once for all children: torch, and what commands import of it and beside it."""

import os

import torch
import torch._dynamo
import torch.distributed.launcher.api
import torch.utils.tensorboard

import yanmo.eval.assess
import yanmo.generate.terminal
import yanmo.hub.imports.pickle_child
import yanmo.parallel.launch
import yanmo.train.trainer

torch.set_num_threads(1)
yanmo.hub.imports.pickle_child.load_something()
os.fsync = lambda descriptor: None  # type: ignore[assignment]  # nobody pulls the plug
