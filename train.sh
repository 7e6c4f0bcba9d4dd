#!/usr/bin/env bash
# The reference run, stage by stage. Without arguments it needs no GPU and no network:
#
#     bash train.sh                       bundled base model + 833 creatures -> sd-pokemon-model/
#
# The real thing, on a GPU with 24 GB or more:
#
#     MODEL_NAME=CompVis/stable-diffusion-v1-4 DATASET_NAME=owner/name bash train.sh
#
# Whatever follows the command goes to train_text_to_image.py: bash train.sh --max_train_steps 100
set -euo pipefail
cd "$(dirname "$0")"

python=$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python)
OUTPUT_DIR=${OUTPUT_DIR:-sd-pokemon-model}

# Scores are those of the model that was trained: none where nothing is.
trains=yes before=
for word in "$@"; do
    case $word in
        --dry_run | --help | -h) trains= ;;
        --output_dir=*) OUTPUT_DIR=${word#*=} ;;
        *) [ "$before" != --output_dir ] || OUTPUT_DIR=$word ;;
    esac
    before=$word
done

if [ -z "${MODEL_NAME:-}" ]; then
    # 1. Pictures: 833 captioned creatures of our own, as many as the data set this project is named after.
    DATA_DIR=outputs/creatures
    [ -d "$DATA_DIR" ] || $python -m bundled.creatures --output "$DATA_DIR" --count 833 --seed 0

    # 2. Fine-tune: 128 px, the whole UNet. The base model draws 400 pictures of what it knows, and every
    #    step learns as many of these, so that it goes on knowing them.
    $python train_text_to_image.py \
        --pretrained_model_name_or_path bundled/base-model \
        --train_data_dir "$DATA_DIR" --resolution 128 --center_crop \
        --train_batch_size 32 --max_train_steps 280 \
        --with_prior_preservation --prior_prompts bundled/prior_prompts.txt \
        --num_class_images 400 --class_data_dir outputs/base-drawings --sample_batch_size 8 \
        --optimizer muon --learning_rate 0.003 --lr_scheduler cosine --lr_warmup_steps 10 \
        --mixed_precision auto --use_ema --ema_decay 0.98 --seed 0 \
        --validation_prompts "a red creature with blue wings" \
            "a round green creature with a leaf tail" \
            "a black pokemon with red wings and a horn" \
            "a tall purple creature with two horns and a flame tail" \
            "a blue fox on a yellow background" \
            "a house with a red roof" \
        --output_dir "$OUTPUT_DIR" "$@"

    [ "$trains" ] || exit 0
    # 3. Did it get better? Captions that no run has seen, base against fine-tuned.
    $python metrics.py --model "$OUTPUT_DIR" \
        --prompts held-out --write_run --report "$OUTPUT_DIR/scores.html"
else
    : "${DATASET_NAME:?Name the data too: DATASET_NAME=owner/name, or a folder with metadata.jsonl}"
    if [ -d "$DATASET_NAME" ]; then data=(--train_data_dir "$DATASET_NAME"); else data=(--dataset_name "$DATASET_NAME"); fi

    $python train_text_to_image.py \
        --pretrained_model_name_or_path "$MODEL_NAME" "${data[@]}" \
        --resolution 512 --center_crop --random_flip \
        --train_batch_size 1 --gradient_accumulation_steps 4 --gradient_checkpointing \
        --max_train_steps 15000 --learning_rate 1e-5 --lr_scheduler constant --lr_warmup_steps 0 \
        --mixed_precision fp16 --use_ema --max_grad_norm 1 --seed 0 \
        --checkpointing_steps 1000 --checkpoints_total_limit 2 --resume_from_checkpoint auto \
        --output_dir "$OUTPUT_DIR" "$@"

    [ "$trains" ] || exit 0
    # On captions of its own pictures where these lie in a folder, else on six fixed prompts.
    $python metrics.py --model "$OUTPUT_DIR" \
        --write_run --report "$OUTPUT_DIR/scores.html"
fi

echo "Try it:  $python app.py --model $OUTPUT_DIR"
