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
