"""Finetune a GPT for instructions. One process:   hfgpt instruct --config demo

Any number, on one machine's GPUs or, for a trial, on its CPU:

    accelerate launch --config_file recipes/accelerate_configs/ddp.yaml recipes/finetune_instruction.py --config demo
"""

from hfgpt.recipes.finetune_instruction import main

if __name__ == "__main__":
    main()
