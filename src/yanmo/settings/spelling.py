"""Names that are not ours: what other tools call a setting, and what is a slip of the finger.

In: a name somebody typed, and the names there are. Out: what to do about it in one line, or nothing.
"""

from collections.abc import Collection

PEER_NAMES = {
    "n_ctx": "model.block_size",
    "n_positions": "model.block_size",
    "context_len": "model.block_size",
    "context_length": "model.block_size",
    "max_length": "model.block_size",
    "seq_len": "model.block_size",
    "emb_dim": "model.n_embd",
    "hidden_size": "model.n_embd",
    "d_model": "model.n_embd",
    "num_layers": "model.n_layer",
    "num_hidden_layers": "model.n_layer",
    "n_layers": "model.n_layer",
    "depth": "model.n_layer",
    "n_heads": "model.n_head",
    "num_heads": "model.n_head",
    "num_attention_heads": "model.n_head",
    "num_key_value_heads": "model.n_kv_head",
    "num_kv_heads": "model.n_kv_head",
    "n_kv_heads": "model.n_kv_head",
    "intermediate_size": "model.n_inner",
    "tie_word_embeddings": "model.tied_head",
    "num_experts": "model.n_expert",
    "n_routed_experts": "model.n_expert",
    "num_experts_per_tok": "model.n_expert_active",
    "n_shared_experts": "model.n_expert_shared",
    "moe_intermediate_size": "model.expert_inner",
    "drop_rate": "model.dropout",
    "lr": "optim.learning_rate",
    "wd": "optim.weight_decay",
    "warmup_iters": "optim.warmup_steps",
    "num_warmup_steps": "optim.warmup_steps",
    "max_grad_norm": "optim.grad_clip",
    "max_iters": "train.max_steps",
    "num_train_epochs": "train.epochs",
    "num_epochs": "train.epochs",
    "lr_scheduler_type": "optim.schedule",
    "init_from": "model.init",
    "pretrained_model": "model.init",
    "vocab": "tokenizer.path",
    "vocab_file": "tokenizer.path",
    "tokenizer_path": "tokenizer.path",
    "raw_data_path": "corpus.path",
    "no_repeat_ngram_size": "sample.no_repeat_ngram",
    "bad_words": "sample.banned",
    "stop_strings": "sample.stop",
    "context_size": "model.block_size",
    "max_train_steps": "train.max_steps",
    "num_train_steps": "train.max_steps",
    "per_device_train_batch_size": "train.micro_batch_size",
    "save_interval": "train.checkpoint_interval",
    "save_steps": "train.checkpoint_interval",
    "eval_steps": "train.eval_interval",
    "log_step": "train.log_interval",
    "logging_steps": "train.log_interval",
    "dtype": "train.precision",
    "length": "sample.max_new_tokens",
    "nsamples": "sample.num_samples",
    "topk": "sample.top_k",
    "topp": "sample.top_p",
    "prefix": "sample.prompt",
    "start": "sample.prompt",
    "max_seq_len": "model.block_size",
    "max_seq_length": "model.block_size",
    "seq_length": "model.block_size",
    "sequence_length": "model.block_size",
    "max_position_embeddings": "model.block_size",
    "dim": "model.n_embd",
    "embed_dim": "model.n_embd",
    "hidden_dim": "model.n_embd",
    "hidden_act": "model.gelu",
    "resid_pdrop": "model.dropout",
    "embd_pdrop": "model.dropout",
    "attn_pdrop": "model.dropout",
    "hidden_dropout_prob": "model.dropout",
    "model_type": "model.family",
    "model_name_or_path": "model.init",
    "from_weight": "model.init",
    "weight_decay_rate": "optim.weight_decay",
    "adam_beta1": "optim.beta1",
    "adam_beta2": "optim.beta2",
    "clip_grad": "optim.grad_clip",
    "warmup": "optim.warmup_steps",
    "lr_scheduler": "optim.schedule",
    "optimizer": "optim.name",
    "steps": "train.max_steps",
    "total_steps": "train.max_steps",
    "max_train_epochs": "train.epochs",
    "micro_batch": "train.micro_batch_size",
    "log_every": "train.log_interval",
    "eval_every": "train.eval_interval",
    "save_every": "train.checkpoint_interval",
    "save_total_limit": "train.keep_last",
    "torch_compile": "train.compile",
    "use_compile": "train.compile",
    "torch_dtype": "train.precision",
    "num_threads": "train.threads",
    "random_seed": "train.seed",
    "num_workers": "data.workers",
    "num_proc": "data.workers",
    "dataloader_num_workers": "data.workers",
    "preprocessing_num_workers": "data.workers",
    "val_split": "data.val_fraction",
    "validation_split": "data.val_fraction",
    "data_path": "corpus.path",
    "train_file": "corpus.path",
    "train_data": "corpus.path",
    "temp": "sample.temperature",
    "max_tokens": "sample.max_new_tokens",
    "max_gen_len": "sample.max_new_tokens",
    "num_return_sequences": "sample.num_samples",
    "repeat_penalty": "sample.repetition_penalty",
    "bad_words_ids": "sample.banned",
}
"""Names people know from other tools, and ours."""

WHAT_TO_DO = {
    "train.batch_size is the batch of one step; train.micro_batch_size is the part in memory at once":
        "gradient_accumulation_steps gradient_accumulation accumulation_steps grad_accum_steps",
    "leave it out: the whole held-out text is measured; data.val_fraction sets its size":
        "eval_iters max_eval_samples per_device_eval_batch_size eval_batch_size",
    "leave it out: metrics.jsonl is always written, and TensorBoard files if tensorboard is installed":
        "wandb use_wandb wandb_log wandb_project wandb_run_name report_to swanlab use_swanlab tensorboard"
        " logging_dir writer_dir run_name",
    "the option --out FOLDER names the run folder": "out_dir output_dir save_dir ckpt_dir output",
    "leave it out: the same command again resumes the run":
        "resume resume_from_checkpoint from_resume overwrite_output_dir",
    "name the devices, train.device=cuda:0,1, or use --nproc":
        "ddp local_rank n_gpu gpus world_size nproc_per_node backend deepspeed fsdp",
    "in yanmo it is train.precision=float16": "fp16 fp16_opt_level",
    "in yanmo it is train.precision=bfloat16": "bf16 use_bf16",
    "in yanmo it is train.precision=bfloat16, or float16": "amp mixed_precision half",
    "give steps, optim.warmup_steps; the default is a twentieth of the run": "warmup_ratio warmup_fraction",
    "leave it out: the rate decays over the whole run to optim.min_lr; optim.schedule says how":
        "decay_lr lr_decay_iters lr_decay_steps",
    "these are commands: yanmo train, yanmo evaluate, yanmo generate":
        "do_train do_eval eval_only do_predict",
    "give steps: train.eval_interval, train.checkpoint_interval, train.log_interval":
        "eval_strategy evaluation_strategy save_strategy logging_strategy",
    "leave it out: RUN/model is the best checkpoint, and train.keep_last says how many are kept":
        "load_best_model_at_end always_save_checkpoint",
    "leave it out: yanmo train TEXT tokenises the text once":
        "raw tokenized_data_path num_pieces segment dataset dataset_name",
    "give the folder with these files: tokenizer.path=FOLDER": "bpe_token encoder_json vocab_bpe",
    "the shape is in [model]: model.n_layer, model.n_head, model.n_embd, model.block_size":
        "model_config config_path",
    "leave it out: no text is too short to train on; `yanmo clean` drops what is not text": "min_length",
    "model.family=gpt2 has biases, the others have none": "bias",
    "in yanmo it is model.family=moe": "use_moe",
    "sample.temperature=0 always takes the likeliest token; there is no beam search": "do_sample num_beams",
    "leave it out: a smaller train.micro_batch_size needs less memory": "gradient_checkpointing",
    "train first; yanmo export writes the folder to upload": "push_to_hub",
}  # fmt: skip
PEER_HABITS = {name: answer for answer, names in WHAT_TO_DO.items() for name in names.split()}
"""Names of what is done otherwise here, each with the one thing to do."""

LETTERS_PER_SLIP = 5
"""Of a name, for each slip beyond the first that is still taken for one."""
MAX_NAME_LETTERS = 60


def nearest(name: str, known: Collection[str]) -> str | None:
    """The known name that ``name`` is a misspelling of: one slip, and one more for every five letters."""
    if not known or len(name) > MAX_NAME_LETTERS:
        return None
    slips, found = min((slips_between(name, other), other) for other in known)
    return found if slips <= len(name) // LETTERS_PER_SLIP or slips == 1 < len(name) - 1 else None


def slips_between(one: str, other: str) -> int:
    """Letters left out, put in, changed or swapped with their neighbour that make one word the other."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        before, above, row = row, before, [i]
        for j, wanted in enumerate(other, 1):
            slips = min(before[j] + 1, row[-1] + 1, before[j - 1] + (letter != wanted))
            if i > 1 < j and letter == other[j - 2] and one[i - 2] == wanted:
                slips = min(slips, above[j - 2] + 1)
            row.append(slips)
    return row[-1]


def shortened(text: str) -> str:
    """What somebody typed, as a message can show it."""
    return text if len(text) <= MAX_NAME_LETTERS else f"{text[: MAX_NAME_LETTERS - 1]}…"
