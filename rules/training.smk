rule train:
    input:
        packed=training_data("packed"),
        start=start_weights,
        hard_negatives=mined_negatives,
        code=code("dark_halo_scope.training.train", "train"),
    output:
        best="results/{generation}/{stage}/best.json",
        history="results/{generation}/{stage}/history.json",
    log:
        "logs/train/{generation}/{stage}.log",
    benchmark:
        "benchmarks/train/{generation}/{stage}.tsv"
    conda:
        "../envs/train.yaml"
    threads: 2
    resources:
        gpu=1,
        mem_mb=16000,
        runtime=2880,
        # A resource, not a setting: to watch a run another way trains nothing again.
        tracking="tensorboard",
    params:
        settings=settings("generation", "training"),
    message:
        "Training {wildcards.generation}, stage {wildcards.stage} (asks for {resources.gpu} GPU)"
    # Resume checkpoints lie outside `output:`, which Snakemake deletes before a rerun.
    shell:
        "exec python -m dark_halo_scope.training.train --packed {input.packed} --settings {params.settings:q}"
        " --start {input.start} --hard-negatives {input.hard_negatives}"
        " --generation {wildcards.generation} --stage {wildcards.stage} --threads {threads} --gpus {resources.gpu}"
        " --tracking {resources.tracking}"
        " --checkpoints results/{wildcards.generation}/{wildcards.stage}/checkpoints"
        " --output {output.best} --history {output.history} 2> >(tee {log} >&2)"
