"""Finetune a GPT for classification. One process:   hfgpt classify train --config demo

Any number, on one machine's GPUs or, for a trial, on its CPU:

    accelerate launch --config_file recipes/accelerate_configs/ddp.yaml recipes/finetune_classification.py --config demo
"""

from hfgpt.recipes.finetune_classification import main

if __name__ == "__main__":
    main()
