"""Pretrain a GPT on text. One process:   hfgpt pretrain --config demo

Any number, on one machine's GPUs or, for a trial, on its CPU:

    accelerate launch --config_file recipes/accelerate_configs/ddp.yaml recipes/pretrain.py --config demo
    accelerate launch --config_file recipes/accelerate_configs/multi_cpu.yaml recipes/pretrain.py --config demo
    torchrun --nproc-per-node 4 --max-restarts 3 recipes/pretrain.py --config demo --resume auto
"""

from hfgpt.recipes.pretrain import main

if __name__ == "__main__":
    main()
