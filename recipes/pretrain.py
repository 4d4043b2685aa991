"""Pretrain a GPT on text. One process:   hfgpt pretrain --config demo

Any number:   accelerate launch recipes/pretrain.py --config recipes/configs/pretrain/demo.yaml --max_steps 100
"""

from hfgpt.recipes.pretrain import main

if __name__ == "__main__":
    main()
