#!/usr/bin/env bash
# Compares methods: a teacher, then a student per method and seed, in a table.
#
#   [NAME=VALUE ...] bash launch/methods.sh DATA_DIR [OUTPUT_DIR]
#
# DATA_DIR holds train.tsv and test.tsv, and may hold validation.tsv, with the
# columns sentence and label. Environment variables choose:
#
#   METHODS="kd kd+mixup"  methods apart by spaces, or "readme" or "all"; a
#                          method with @P/Q takes P/Q of the steps
#                          (default: readme)
#   SEEDS="0 1 2"          each with its own draw of training rows
#   TRAIN_EXAMPLES=1000    rows that the students learn from
#   NUM_STEPS=1200         steps of a student
#   TEACHER_STEPS=2500     steps of the teacher, which learns from all rows
#   MAX_LENGTH=64
#
# README's table is that of BANKING77, 10,003 and 3,080 rows made from train.csv
# and test.csv of banking_data in
# https://github.com/PolyAI-LDN/task-specific-datasets (CC-BY-4.0), and takes
# about an hour on two CPU cores. Run again, it goes on where it stopped.
set -euo pipefail

README="ft kd kd+mixup kd+token_mix kd+augpro_mix kd+augpro_mix+augpro_fgsm"
# The methods of the papers, their controls, and what goes well together;
# kd@7/3 costs about as much as a method with one view, and @41/30 of the deep
# one as much as both AugPro views.
ALL="$README
  kd@7/3 kd(teacher_weight=2)
  kd+tmix kd+pooled_mixup kd+nonlinear_mixup kd+batch_mixup(weight=0.1)
  kd+fmix kd+fmix_embeddings kd+cutmix kd+alternate(fmix,mixup)
  kd+one_of(fmix,mixup)
  kd+fgsm kd+fgsm(delta=0.3) kd+fgsm(delta=1.0)
  kd+ad2(epsilon=0.1) kd+ad2(epsilon=0.3) kd+ad2(epsilon=1.0)
  kd+ad2(epsilon=3.0) kd+noise(epsilon=1.0) kd+ad2(steps=3,epsilon=1.0)
  kd+freelb(epsilon=1.0) kd+smart
  kd+augpro_fgsm kd+augpro_fgsm(direction=descent)
  kd+augpro_fgsm(direction=random) kd+mixup+fgsm(delta=0.3)
  kd+token_mix+augpro_fgsm kd+token_mix+tinybert ft+augpro_mix ft+augpro_fgsm
  kd+knn kd+tinybert kd+random kd+eda
  kd+rewrites kd+rewrites*4 kd+mmel_soft(view=rewrites)*4
  kd(clean=false)+mmel_hard(view=rewrites)*4 kd+mmel_soft(view=augpro_mix)*4
  kd+hidden_mse kd+pkd(project=true) kd+attention_kl(heads=mean) kd+relation_kl
  kd+ad2(epsilon=1.0)+hidden_mse(on=all)+attention_kl(on=all,heads=mean)
  kd+tinybert+hidden_mse(on=all)@41/30 kd+token_mix+hidden_mse(on=all)@5/3"

if [ $# -lt 1 ] || [ $# -gt 2 ] || [ "$1" = --help ]; then
  sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" >&2
  exit 2
fi
# shellcheck source=launch/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

prepare_environment
data=$1
out=${2:-$ROOT/runs/$(basename "$data")}
methods=${METHODS:-readme}
[ "$methods" = readme ] && methods=$README
[ "$methods" = all ] && methods=$ALL
splits=(--train "$data/train.tsv" --test "$data/test.tsv"
  --max_length "${MAX_LENGTH:-64}")
[ -e "$data/validation.tsv" ] && splits+=(--validation "$data/validation.tsv")

augdistill finetune "${splits[@]}" --num_steps "${TEACHER_STEPS:-2500}" \
  --output_dir "$out/teacher"
if [[ $methods == *rewrites* ]]; then
  augdistill pretrain "${splits[@]}" --num_steps "${GENERATOR_STEPS:-2500}" \
    --output_dir "$out/generator"
fi
runs=()
set -f # A star in a method is no pattern.
for seed in ${SEEDS:-0 1 2}; do
  for method in $methods; do
    steps=${NUM_STEPS:-1200}
    name=$method
    if [[ $method == *@*/* ]]; then
      share=${method#*@}
      steps=$((steps * ${share%/*} / ${share#*/}))
      name=${method%@*}@$steps
    fi
    run="$out/$name/seed$seed"
    more=()
    [[ $method == *rewrites* ]] && more=(--generator "$out/generator")
    augdistill distill "${splits[@]}" --teacher "$out/teacher" \
      --method "${method%@*}" --train_examples "${TRAIN_EXAMPLES:-1000}" \
      --num_steps "$steps" --seed "$seed" "${more[@]}" --output_dir "$run"
    runs+=("$run")
  done
done
augdistill table "${runs[@]}"
