rule figure_training_examples:
    input:
        packed="results/datasets/{dataset}/packed.json",
        code=code("dark_halo_scope.paper.training_examples", "figures"),
    output:
        "results/figures/training_examples_{dataset}.png",
        "results/figures/training_examples_{dataset}.pdf",
    log:
        "logs/figure_training_examples/{dataset}.log",
    conda:
        "../envs/figures.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        settings=settings("dataset", "examples"),
    message:
        "Drawing examples of {wildcards.dataset}"
    shell:
        "exec python -m dark_halo_scope.paper.training_examples --packed {input.packed}"
        " --settings {params.settings:q} --output {output} 2> >(tee {log} >&2)"


rule figure_dataset_page:
    input:
        stamps="results/datasets/{dataset}/stamps.json",
        quality="results/datasets/{dataset}/quality.json",
        arc_light="results/datasets/{dataset}/arc_light.json",
        negatives=negatives_of,
        code=code("dark_halo_scope.paper.dataset_page", "figures"),
    output:
        "results/datasets/{dataset}/page.png",
        "results/datasets/{dataset}/page.pdf",
    log:
        "logs/figure_dataset_page/{dataset}.log",
    wildcard_constraints:
        dataset=datasets_of("build", "existing"),
    conda:
        "../envs/figures.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=20,
    params:
        settings=settings("dataset", "page"),
    message:
        "Drawing the page of {wildcards.dataset}: distributions, realism, shortcuts, examples"
    shell:
        "exec python -m dark_halo_scope.paper.dataset_page --name {wildcards.dataset} --stamps {input.stamps}"
        " --quality {input.quality} --arc-light {input.arc_light} --negatives {input.negatives}"
        " --settings {params.settings:q} --output {output} 2> >(tee {log} >&2)"


rule table_generations:
    input:
        gates=expand(
            "results/{generation}/gates.json", generation=CONFIG.main_generations
        ),
        models=trained_stages(CONFIG.main_generations, "best"),
        histories=trained_stages(CONFIG.main_generations, "history"),
        code=code("dark_halo_scope.paper.generation_table", "figures"),
    output:
        "results/generations.csv",
        "results/generations.md",
    log:
        "logs/table_generations.log",
    conda:
        "../envs/figures.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=5,
    params:
        settings=CONFIG.table_settings(CONFIG.main_generations),
    message:
        "Putting every generation into one table"
    shell:
        "exec python -m dark_halo_scope.paper.generation_table --gates {input.gates} --models {input.models}"
        " --histories {input.histories} --settings {params.settings:q} --output {output} 2> >(tee {log} >&2)"


rule table_ablations:
    input:
        gates=expand("results/{generation}/gates.json", generation=CONFIG.ablations),
        scores=ablation_scores(),
        code=code("dark_halo_scope.paper.ablation_table", "figures"),
    output:
        "results/ablations.csv",
        "results/ablations.md",
    log:
        "logs/table_ablations.log",
    benchmark:
        "benchmarks/table_ablations.tsv"
    conda:
        "../envs/figures.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        settings=CONFIG.table_settings(CONFIG.ablations),
    message:
        "Putting the ablations and how far each lies from the base into one table"
    shell:
        "exec python -m dark_halo_scope.paper.ablation_table --gates {input.gates} --scores {input.scores}"
        " --settings {params.settings:q} --output {output} 2> >(tee {log} >&2)"
